"""A manufacturing execution system in small: rules, a table and the workflow around an inspection."""
