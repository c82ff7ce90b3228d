"""A real connector in small: a purchase order carried out at a vendor and approved in Connect."""

from examples.purchase.saga import PurchaseSaga
from examples.purchase.steps import (
    ApproveRequest,
    CreateCustomer,
    CreateSubscription,
    FillParameters,
    ValidateParameters,
)
from examples.purchase.vendor import Vendor, VendorRefused, VendorUnavailable

__all__ = [
    "ApproveRequest",
    "CreateCustomer",
    "CreateSubscription",
    "FillParameters",
    "PurchaseSaga",
    "ValidateParameters",
    "Vendor",
    "VendorRefused",
    "VendorUnavailable",
]
