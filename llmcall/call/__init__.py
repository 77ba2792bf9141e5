"""One call: looked up, admitted, sent, tried again, recorded."""
