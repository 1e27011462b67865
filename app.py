"""Start Diffusion Studio: `python app.py --help` lists the options."""

from studio.cli import main

if __name__ == "__main__":
    main()
