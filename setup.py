"""Only names the cffi build; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["lbfwd/_ring_build.py:ffibuilder"])
