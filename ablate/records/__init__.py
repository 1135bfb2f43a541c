"""What is written down: a trial's folder, a sweep's table, and what MLflow is told of both."""
