"""Makes tests/data/deepspeed_index: what DeepSpeed 0.19's data analyzer writes for a small corpus.

Run it where deepspeed is installed: `OMP_NUM_THREADS=1 python tests/data/make_deepspeed_index.py`.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parent / "deepspeed_index"


def main() -> None:
    """Analyze lengths and rarities (times 100, cut to integers) with two workers; keep the merged files."""
    from deepspeed.runtime.data_pipeline.data_sampling.data_analyzer import DataAnalyzer

    random = np.random.default_rng(0)
    samples = [np.minimum(random.zipf(1.3, random.integers(1, 60)), 900) for _ in range(300)]
    counts = np.bincount(np.concatenate(samples))
    rarity = np.log(counts.sum()) - np.log(np.maximum(counts, 1))
    functions = {
        "seqlen": lambda batch: torch.tensor([len(sample) for sample in batch]),
        "rarity": lambda batch: torch.tensor([int(100 * rarity[sample].sum()) for sample in batch]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for worker in range(2):
            analyzer = DataAnalyzer(
                [torch.from_numpy(sample) for sample in samples],
                num_workers=2,
                worker_id=worker,
                batch_size=10,
                metric_names=list(functions),
                metric_functions=list(functions.values()),
                metric_types=["single_value_per_sample"] * 2,
                metric_dtypes=[torch.int64] * 2,
                save_path=folder,
                collate_fn=list,
            )
            analyzer.run_map()
        analyzer.run_reduce()
        for name in functions:
            (OUT / name).mkdir(parents=True, exist_ok=True)
            for kind in ("sample_to_metric", "index_to_metric", "index_to_sample"):
                for suffix in ("idx", "bin"):
                    file = f"{name}_{kind}.{suffix}"
                    shutil.copy(Path(folder) / name / file, OUT / name / file)
    (OUT / "corpus.json").write_text(json.dumps([sample.tolist() for sample in samples]) + "\n")


if __name__ == "__main__":
    main()
