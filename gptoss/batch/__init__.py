"""`gptoss batch`: a file of requests, answered as fast as the model can, in OpenAI's batch format.

lines    one line of the input → a request, or what is wrong with it
results  the file of results: one line a request, each written once, also over several runs
client   one request → its answer, from the application in this process or from a server at a URL
run      all of them together
"""
