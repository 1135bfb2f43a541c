"""What is written: a trial's folder, a sweep's folder and table, and the delivery to MLflow."""
