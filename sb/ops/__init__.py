"""Operations: plain functions of an open transaction, one noun per module."""
