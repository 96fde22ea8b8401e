"""A gallery as a retriever of LangChain and of LlamaIndex, each behind its own extra."""
