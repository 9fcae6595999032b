"""Batch prediction: writes a registered model's answers to the rows of a file or a query as Parquet.

request.py   the request, and the batch: the verified version, its inputs and outputs
rows.py      the source's rows, in shards
answers.py   the predictions for one shard
output.py    the output, one file or directory, committed at once
record.py    the run in MLflow
"""
