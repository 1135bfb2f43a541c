"""`python -m ablate.explain runs/<sweep>/<trial>`: what is known about a trial, and what to try next."""

from ablate.commands.explain import main

if __name__ == "__main__":
    main()
