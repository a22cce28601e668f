"""gptoss behind Ray Serve: replicas on one machine or many, at one address.

app     the deployment: our ASGI application unchanged, its number of replicas, GPUs and limits
sticky  in Ray's HTTP proxies: a session's requests go to one replica, where its prefixes are cached
"""
