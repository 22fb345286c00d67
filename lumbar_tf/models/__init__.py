"""Networks and losses: backbones, localizers, level decoding and graders."""
