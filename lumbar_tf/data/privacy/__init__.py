"""What keeps patients unnamed: pseudonyms, the scan for identifying text, and forgetting."""
