"""The servable ensemble: one graph of all members and the stacker, written, proven and asked."""
