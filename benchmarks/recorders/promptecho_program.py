"""promptecho: a cassette around the program."""

from __future__ import annotations

if __name__ == "__main__":
    import promptecho
    from program import main

    main(lambda _: promptecho.use_cassette("cassette.yaml"))
