"""Difficulties of every sample, computed once and memory-mapped ever after.

In the folder that is given as `out`:

```text
out/
  manifest.json         format, fingerprint of the corpus, number of samples;
                        each metric's dtype, range, percentiles and checksums
  <metric>/values.npy   one value a sample, in sample order
  <metric>/order.npy    sample ids by (value, id)
  <metric>/fitted.npy   statistics of the whole corpus, of metrics that have them
  parts/                what finished shards left, of a build under way or cut off
```
"""

from dataeff.index._build import build
from dataeff.index._combine import lexicographic, rank, weighted_sum
from dataeff.index._deepspeed import import_deepspeed
from dataeff.index._executors import processes, serial, threads
from dataeff.index._store import Index, from_values, open

__all__ = [
    "Index",
    "build",
    "from_values",
    "import_deepspeed",
    "lexicographic",
    "open",
    "processes",
    "rank",
    "serial",
    "threads",
    "weighted_sum",
]
