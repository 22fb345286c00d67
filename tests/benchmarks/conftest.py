"""Scripts that import each other by name, or need an environment of their own, hold no doctests."""

collect_ignore = ["ablation.py", "localizers.py", "plain.py", "serving.py", "torch_loader.py", "training.py"]
