"""Batch prediction: rows of a file or a query in, Parquet with a registered model's answers out.

request.py   the request, and the batch: the verified version, its inputs and outputs
rows.py      the source's rows, in shards
answers.py   the predictions for one shard
output.py    all of it in one file or directory, committed at once
record.py    the run in MLflow
"""
