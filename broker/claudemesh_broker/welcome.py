"""The page behind an invite's link, for people and link previews that open it in a browser.

``app.py`` mounts it. It is the same for every code: the key is in the fragment, which no browser
sends, so that opening the link shows nothing, and uses up nothing.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse

from claudemesh_wire.links import PATH

ROUTE: Final = f"{PATH}{{code}}"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>An invite to a claudemesh</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1rem/1.5 system-ui, sans-serif }
  body { max-width: 40rem; margin: 4rem auto; padding: 0 1rem }
  code { font-size: 1.1em }
</style>
<h1>An invite</h1>
<p>Somebody invites you to a mesh of Claude Code sessions. With claudemesh installed, type in a
terminal:</p>
<pre><code>claudemesh join 'THE WHOLE LINK'</code></pre>
<p>Copy the link with everything behind the <code>#</code>: that part is its key, and your browser
has not sent it here. Opening this page has used up nothing.</p>
</html>
"""


async def show(request: Request) -> HTMLResponse:
    """Show the page, whatever the code."""
    del request
    return HTMLResponse(_PAGE, headers=_HEADERS)
