"""``python -m coexec``: the command ``coexec`` where its script is not at hand."""

from coexec.cli import main

if __name__ == "__main__":  # also imported, by the processes that a study starts
    main()
