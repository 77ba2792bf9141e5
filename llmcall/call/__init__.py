"""How one call goes: looked up, admitted, sent, tried again, recorded."""
