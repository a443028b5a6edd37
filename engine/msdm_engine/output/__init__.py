"""Where generated pairs go: files, their records, and the job that fills a set."""
