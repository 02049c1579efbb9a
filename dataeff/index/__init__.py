"""Difficulties of every sample, computed once and memory-mapped ever after.

In the folder that is given as `out`:

```text
out/
  manifest.json         format, fingerprint of the corpus, number of samples;
                        each metric's dtype, range, percentiles and checksums
  <metric>/values.npy   one value a sample, in sample order
  <metric>/order.npy    sample ids by (value, id)
  parts/                what finished shards left, while a build is under way
```
"""

from dataeff.index._build import build
from dataeff.index._executors import processes, serial, threads
from dataeff.index._store import Index, from_values, open

__all__ = ["Index", "build", "from_values", "open", "processes", "serial", "threads"]
