"""Hundreds of models on workers whose memory holds a tenth of them."""
