"""Milvus (https://milvus.io): the vectors live in a server that may be many machines; a generation names them.

``target`` is what follows ``milvus:`` in a backend's name, ``collection`` speaks to the server, ``filters`` turns
allowed keys into expressions, ``facts`` is the file a generation keeps, ``index`` is the ``VectorIndex`` and
``lifecycle`` what becomes of collections whose generation goes live or is forgotten.
"""
