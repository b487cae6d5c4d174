"""Pickles of tables as pandas writes them (deflated, base64), by (version of pandas, protocol of the pickle).

Made with pandas of that version from a dictionary: tomo x y z 110 105 40; order 2 0 1; ctf of three tilts; box of two rows of
four numbers, without names; frames, a list of texts; vir, None.
"""

PICKLES = {
    ("2.2.3", 2): (
        "eNp1VQmb00QYbrt38EBFWBURFTV4VBcUV11tWRYUAkXHqx41Jmm6EzZN+yZTdhepgNh2V8VrPQDFA+8bb/FCtz9MZyZp6a44eZ5+k8zMN997zH"
        "R/ooqYmu2OxWKsVCwhbpUNL28ESavk28mCbxRtZcxgxhbZQ2LtAXRV0R2u0IvjPnoWrHA8Zvue4QbJouEZ47YfKKNuyZrYEb4p6G1N113HDE7P"
        "V/SKV3asCdfWTbFAQZ/lVYrl6aQuExcrLnMM3zemFd23rZIXML9iMQX94TSFJ5WjGNBiNSgWX5a3rUCxPdFRsCQb5yWbOCvby6NrMMcbwtl1nE"
        "NwbgNLCc5TtbjWpcXrOD9KmWfTZb7ygmyCr3CGsWx2poELCZarWpfMNoIVmUxm2z+8yR8txjBoztIl2UE+6sXC5kRRjSIuonzfiwkuYVhpWrpu"
        "VhwOztN1JXAdi+94qRYTlTSwiuAyLdHAaoLLa7gihyvVRXTn7Sk7SJpGYCu6Z0/qW8UXBWv+f1o046oqrg5lzHN9cQ3tp5I5lXI61hJcK+mo4T"
        "oa4t85jOsF/hsIki38e3HjQvwphpvM2RyGVDk+hXUyTmO9jHtws81wiym39bijsCFTqeNWgmF65op9wxu3FSJ+o7pvq+J2lW7IZHt4joAZPsMd"
        "WkxmDFipjBEtHr3YZdypxXn+uwhSdh1pgo2hb7muGM0ORNily7FJvutFmxmSkLEcNss9DMb8AFuquFs6Ry+4xniAe6rYml0hhl23NBno+UqZa2"
        "cwW3cN03YDbJsJKqZMUPLztg+NisOzvYodKu2hvbSvRXhGEL6T4F5BOKe8jvvo8paHErGFLd7yEBEeup/gAYYHTSoMExeGeYjgYWGYLMEjNTya"
        "w2MqXUO51o+rtC1xTuz4BIEud6zhSZrkmhlUMxhMk0pNLII8X8nZtgXblHNMR7QuGjJaIBjnjFICh47STXSMbqacoV2U0zJBQ+hdvEyLFeBK4M"
        "UqvEXAS6KMMgFEGd0CuB95rTCMQHiNEVS41+h/T9luecqmW7Rsbx5Ky878THMuHX061v50cPHgrubhsBNrnkhFOaIP/en5o/NH2s/JVOdrcza1"
        "XrbmXAqTQoIpgmmGPUKCuNYjJHiKYK+QoErw9Gmw+wTY/QQHBNiEAPtMqPKwKOJ481Tn04K1KooDUeyPYl/LBQdFCc8S1BjqoQsUraeBBsGMKG"
        "GW4Lk6ns/hhcgFhzpc8KKo6CWCl0VFvTW8Il3wqppVxJ8Bv5F0fupcG3NSyXxhCK9FvXV4XfaMgOENKZhl4c2sqMoOGL+eAxzm5/xIZKWjBG+F"
        "Vnr7DFY6RvAOt9K7BO91Wul9YaXjHVYyS1P4QFrpwyo+WmSljwWWTwg+Da2UqOMzWhHsbmyfnLbQy9ILBR9sCx/GlVFcGsXVaXwuaP6C4EuGr0"
        "Kau4XSXxN8I2g+QfBtDd/l8L0a4vyhA2d3hPNHgp/C0Z87RhPR6C8EJzkLvxL81snC74KFPyIWxO0j76oAf+ZwSg1vpyRzCvhL9k3Z/9uWfO12"
        "fMxnKsl/ASTKctQ="
    ),
    ("2.2.3", 5): (
        "eNqlVE1v0zAYbtqm3coQAyZWBJp2oxOiGoMDQkitNgTashUYCMFhCk7q1GH5qBKHbWiT4NCySb5hkOCfcObEgdMuXLjwC/gH47WTbslWCSQs1Y"
        "+d+rXf93ke+436YaWUk22H11iR+q7P2dku8toorJt+gOtWgFzM2ehdRNE9OX7PZ95yuVx3OwFnU+nltkdx4CEnrLvIQx0chJyNzTu+ub4SzyGc"
        "XUgidMc2wqMQzs7okde1zXUH64aIEYvPe5Hb3arrcnsY48A2OTulW4HvGpFlyS1rH6txGTkvQTvBWoKcqXIjwDbd6ooyWN6+xfd23/FVXtMKTL"
        "nDW63W0gE02Wk5yg2toCl9zpQFTmEZGzEi26G2B7mqoWObYhstJxaJXbS86Ht8DcipZllp400c1g0UApcV3cMb+qL4BuHkClMHY8lqG5gGjtJl"
        "uxEcioIAQfpjeoBN3wtpEJlUxJ9jZThJ/imS6fEFxeBxUYpW6HEywfIPMoVuHyu0AYXuiaSVTSgVzlBecwzfWNETgreiPkSSGXZxWE0B8jqiqF"
        "WBqULIfAs4oiigkBQrhtTvck0RAywGck8sOvARCAIWE4UP7Ka7mCLJxBpQjSgFI+1wVtItB3XkcBI5jr8R6u2oC0IginUHGRhctBtGBlP9oA3O"
        "IMXYq6RMKuQ0GT/yST6XbcrAJ2RS0Nbn5JJQnEyDvMoJeckMuSq2vUZmyZzgnNwcMK7A5DawSZ4joBBYSNgj92NSyKKWI0tagWhpEshD8oisks"
        "fkyQ4nT+H3TJZRMKk1pIgX6cyXvzcl7u7HuPwzmX/Nfn/5I8bc70YSmcxHmp8/ifalEeO3xg3Z9hvSO1bKO6Q65IoUM3QpmpqmK054Njnx10Hc"
        "BrlPJTia4EiC5ZQa+WNqVDT1aPv+X9QoJWrUWIXCzdXBpA74q9C2rst+DnoUUngLTHhVyjikcL1C6f7/lc7wN4dI18y4biDFRDMrSfVQmhgvJz"
        "ie4HSTk20gPp9hpjjMp9nci4e5n/gr/09lleQNDeUbp6I6tS24n4ZEzAqv7ACei/ofWA4ngg=="
    ),
    ("3.1.1", 4): (
        "eNqllL9vEzEUx3PJJW0DFUXlR4VKYWAIA4ECEkhUSvoDEL0SpPJjgWJ8d0589HJ3unNogqiAoaGVvNUMwF/CzMTA1IWFhZUFNrby7Lu0SVupSL"
        "V0fvbZz/b7vK/9Rn//K5dSZVkUuM78ui94LsCejSPBB2Yww7dCXCdiXZx/K9QcVK+Fgo/Fc4qWH5Ki4zESetiNinXs4RoJwffwlOtbi3fjPrjz"
        "E4kHch0z2nYR/AhqeIFjLboEmdJHTfYa9aBVRGr5esNlDg5D3IJlUUgs34tY2LCYnJlVMwXvg8XVlHVhpFbEtGaKd2JeFAzNyBhaW9CjPGuzVi"
        "BD4WnnulhbjcczXJsQlUpldhOKqowUE+ba9IgXk0k5iS0kVsAw7zcbDhzLgwCyketYRG0s95LLGmlZr4gFIDbSi8omTRIVTRwRwfPII0vojvwH"
        "7jTNs522Qm0DfsGHe8CpIGHTUYSCVnMbXWVmUo5MYWuR2DLGwcSt43DoPgsdrzaZQJo9k/ujV+QpYdtkbKbDJxe0GPU9cfv13zjktpw3RIclWn"
        "p8Cyx0TvH0vR6Yr3bALEmYkoPWFFyDTGkvBYF/bYCoe1JblYZa/gIcJD+PvRrpgkArFeDLcMiALtcj5gfC0GSDyIbyJLICYcLpQbMSWlVplg+g"
        "OmFYUVyANGHGQJnLEB6qurimmiex6/pLEbIbASQRM4JcbBKQ5WrUMHnWD21QL9Vj8dM+mqeDuzkACRDYaZBMOtVbtC7J0HOgD22XPiDui3LtcX"
        "qVXuvKyg06sQ9+DTo3AS2FCBVPgNVBOR+zow+MFH1oZOijblb0MX1CF+hTipYFxfBZKtqMxar7xpruxHrp52ZcOrGOJXYgsf2J7dvJIG9ktxns"
        "tYeu9gBlVbuURcf2uqTP1NJz38rKrm7Edu5H0v/S+//599imfpeSQyX9/vLHD7J8LsX2a+mKKhul5NSake3OXPtgmcslmSvwPINXBIHoXdBrxq"
        "6Oq/oy1Dhi8FBZFjxtJGLw7EWda3PQNJt+c98060YaUvBpbXoHsGPlXnAjWwBjO5rYocSeLW+lXd9L+r0B6FsB7BpK/1dsOXXzI/XuZnGROVW4"
        "96ayhGdeOCE8NsV/ITpsXQ=="
    ),
}
