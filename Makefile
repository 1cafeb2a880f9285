# Everything here is one call of a script that also works on its own.
.PHONY: help check fast format quickstart clean

help:  ## say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

check:  ## the whole gate: set-up, format, lint, types, doctests, tests
	./scripts/test

fast:  ## the same without the tests marked slow
	./scripts/test --fast

format:  ## let ruff rewrite what it can
	.venv/bin/python -m ruff format .
	.venv/bin/python -m ruff check --fix .

quickstart:  ## set up and run the main job
	./scripts/quickstart

clean:  ## remove caches and build leftovers; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find leap envs tasks configs tests -name __pycache__ -type d -prune -exec rm -rf {} +
