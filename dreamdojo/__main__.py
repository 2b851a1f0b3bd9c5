"""`python -m dreamdojo`: the same as the `dreamdojo` command."""

from dreamdojo.cli import main

if __name__ == "__main__":
    main()
