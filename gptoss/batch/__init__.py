"""`gptoss batch`: answers a file of requests in OpenAI's batch format, with the highest throughput.

lines    reads the input: a line → a request, or why it is invalid
results  the file of results: one line for each request, written once, also over several runs
client   sends a request to the application in this process, or to a server at a URL
run      runs all requests
"""
