"""Networks and pipelines. Each file is self-contained, because the file we train with travels to the Hub."""
