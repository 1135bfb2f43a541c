"""What is trained on what: data, models, losses, update rules, initialisations, mistakes; no engine, no YAML."""
