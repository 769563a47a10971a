"""Networks and pipelines. They import nothing of ours from elsewhere, because they travel with the weights."""
