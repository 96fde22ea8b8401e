"""Embedding on many machines by Ray Data: decoding and encoding go to a pool of actors, all else stays here.

The driver (the process of ``precedent index``) walks, scans, assembles and commits as it does alone; ``RayEngine``
takes the place of the embedder in between. Nothing but drafts goes out, nothing but embedded cases comes back, and they
come back in the order they went. So a gallery is the same whichever engine made it.

Ray is imported only by what runs when it is asked for.
"""
