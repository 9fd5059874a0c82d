"""`python -m losskit_cli` is the command too."""

from .app import main

if __name__ == "__main__":
    main()
