"""Does it train as well on half the data? A study that anyone can rerun.

`python -m tests.benchmarks.study run gpt --size s` goes through the runs of one config in order of what
matters, takes up each where it was left, and may be stopped at any moment; `table` gathers what is finished
in `tests/benchmarks/results/study/`, and `page` makes docs/evidence.md and its pictures of that and nothing
else. A config in `configs/` holds a study's arms, sizes and seeds; a task is the file that it names.
"""
