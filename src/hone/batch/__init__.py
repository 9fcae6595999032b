"""Batch prediction: rows of a file or a query in, Parquet with a registered model's answers out.

request.py   what is asked for, and settled: the version, proved, and what its model takes and gives
rows.py      the source's rows, in shards
answers.py   the answers to one shard
output.py    all of it in one file or directory, committed at once
record.py    the run in MLflow
"""
