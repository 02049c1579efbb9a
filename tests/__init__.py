"""Tests of dataeff."""
