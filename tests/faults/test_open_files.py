"""A process that may open no further file: nothing is damaged, and no disk is full."""

from __future__ import annotations

from commands import NEEDS_POSIX, ran

pytestmark = NEEDS_POSIX


def test_a_cache_without_files_left_names_the_limit() -> None:
    """It is neither damaged nor on a full disk."""
    printed = ran(
        """
        import resource
        ScriptedClient(["Two."], cache_mode="auto", cache_path="cache").send_message("Bread?")
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        opened = []
        try:
            while True:
                opened.append(open(os.devnull))
        except OSError:
            pass
        try:
            len(ResponseCache("cache"))
        except llmcall.CacheError as error:
            print(type(error).__name__, error)
        """
    )
    assert printed.startswith("CacheError")
    assert "use fewer workers, or raise the limit" in printed
    assert "damaged" not in printed and "disk" not in printed


def test_a_map_raises_the_limit_of_open_files() -> None:
    """macOS allows 256, and each worker opens the cache."""
    printed = ran(
        """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        llmcall.map(str, range(3))
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 2**16))
        """
    )
    assert printed == "True"
