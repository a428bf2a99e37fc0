# The active virtual environment, else .venv, which is made when there is none.
VENV := $(or $(VIRTUAL_ENV),.venv)
PYTHON := $(VENV)/bin/python
INSTALLED = $(VENV)/.progdistill-$(1)

.PHONY: demo test test-slow style quality docs

demo: $(call INSTALLED,demo)
	$(PYTHON) -m diffusers_progdistill.commands.main demo

test: $(call INSTALLED,test)
	$(PYTHON) -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(call INSTALLED,test)
	$(PYTHON) -m pytest -n auto --dist loadfile -m slow

style: $(call INSTALLED,dev)
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .

quality: $(call INSTALLED,dev)
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy

docs: $(call INSTALLED,docs)
	$(PYTHON) -m mkdocs build --strict

$(PYTHON):
	python3 -m venv $(VENV)

$(VENV)/.progdistill-%: setup.py constraints.txt | $(PYTHON)
	$(PYTHON) -m pip install -q -c constraints.txt torch
	$(PYTHON) -m pip install -q -c constraints.txt -e .[$*]
	touch $@
