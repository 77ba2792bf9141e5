#!/bin/sh
# Asks the question in its argument, and prints the response.
curl --silent --show-error --fail "$OPENAI_BASE_URL/chat/completions" \
    --header "Authorization: Bearer $OPENAI_API_KEY" \
    --header "Content-Type: application/json" \
    --data "$1"
