"""aiohttp and urllib: what their sessions and openers send to models is recorded."""
