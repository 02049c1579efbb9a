"""The picture of docs/tuning.md, from the code that stands there: `python docs/images/tuning.py`."""

import re
import tempfile
from pathlib import Path

from dataeff import report

docs = Path(__file__).parent.parent
code = re.search(r"```python\n(.*?)```", (docs / "tuning.md").read_text(), re.DOTALL)[1]
with tempfile.TemporaryDirectory() as folder:
    scope = {}
    exec(code.replace('out="tuning"', f'out="{folder}"'), scope)  # noqa: S102
report.save_tuning(scope["tuned"], docs / "images/tuning.png", title="Tuning the pace of the sequence length")
