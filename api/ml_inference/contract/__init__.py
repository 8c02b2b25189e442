"""What a model promises: pure values and arithmetic; no files, clocks, threads or async."""
