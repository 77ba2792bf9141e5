"""vcrpy: a cassette around the program."""

from __future__ import annotations

if __name__ == "__main__":
    import vcr
    from program import main

    recorder = vcr.VCR(match_on=["method", "uri", "body"], filter_headers=["authorization"])
    main(lambda _: recorder.use_cassette("cassette.yaml"))
