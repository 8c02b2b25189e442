"""`python -m ml_inference` is `ml-inference`."""

from ml_inference.cli import main

if __name__ == "__main__":
    main(prog_name="ml-inference")
