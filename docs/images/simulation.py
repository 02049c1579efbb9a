"""The picture of docs/simulate.md, from the code that stands there: `python docs/images/simulation.py`."""

import re
import tempfile
from pathlib import Path

from dataeff import report

docs = Path(__file__).parent.parent
code = re.search(r"```python\n(.*?)```", (docs / "simulate.md").read_text(), re.DOTALL)[1]
with tempfile.TemporaryDirectory() as folder:
    scope = {}
    exec(code.replace('out="idx"', f'out="{folder}/idx"'), scope)  # noqa: S102
report.save_simulation(scope["found"], docs / "images/simulation.png", title="A dry run")
