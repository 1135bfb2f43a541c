"""What is trained on what: data, models, losses, update rules, starts, mistakes. It knows no engine, no YAML."""
