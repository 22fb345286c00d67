"""Command line: option parsing, output, progress and shell completion."""
