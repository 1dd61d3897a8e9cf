"""What each state of a trellis stands for: tables refined on normal numbers by
``docs/experiments/train_trellis.py``.

Constants, not computed at import, because both sides must hold the same bits. Each number is an
fp16, and the complement of a state stands for the negative number, so half a table in base64 is all
there is. Changing one is a new payload format.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

# fmt: off
HALF_CODEBOOKS: dict[tuple[int, int], str] = {
    (8, 1): (
        "LbqvOK6/rK9RsEk2oLyqNzo4aLlONP0/sLrkOFs4EbeyuKc6qLjMN6m24zxXOAC82jtytrU6IrkhsugyZTf3vFU2Q7gtPT+8gDeFvOU5a7VbM4"
        "w9U7jZtJW6/TiPu1AyQ7T+OFM6xrkjuN07wz+ppXi+PzRiPqq0uDabvOU2HbhmtqQ9Y7a+N0y9QTULPqm0uz9koWc4GbxuuX43Azc4vwrAhrD4"
        "O5+4A720umY07D0uvRA3praKOoq4bzbAt/g64Lb0POAypb6iuac5v75ONG64Kzk5NnO6PTvruHU4ULlKs749ojyIt6az0TkDui84ajzltY0zRL"
        "6Fvjcv8TuAtw=="
    ),
    (8, 2): (
        "8rk2OmKuzL3CP366wSn6OkO2aTSMPcc4mji1Pqm06b0gtoM16jzjvK0t/LpBPqcy2zptLTW/i7h7ua9A4zq7uaE+WLRaOPK8tj0owMa5GTj0OV"
        "y5mywGQJk0lLREO4e8YLrSPHErwzGRvXG0SzzYQTI4z8CHvau3Lb6FtyM7MTDVOLc+abvPNNWw5Tijulu+DDpatcK8RLR/uk05Gj68rOG8bzz/"
        "tK00u7ntv20rCDw0LC24oDcWPYs3GTmBuIenrLgrPaS9ti6YtKk2yDwNQPQ/6ThNtWy8iLzfOygxMLV+v/K2STq6Pt+wfjc4vIM9265Gu/As0z"
        "sIOJK8sKhMQQ=="
    ),
    (8, 3): (
        "ZDqNPss8ery+tCchcTb2uKQ8jrNKuYk3Nb/DOim87Sz5vAcyrDyPOsGuFrDIuNk2QL82MCo8AD/YtkG6tkAaOZQwnkIJQFo7DLrFPQE5arPmvf"
        "y7YD07wM45RLGRuEE0cTRRtO8+Gr5DOzC6ZDjIqXW6ATh1timxC8DFMZk7Wr1yvFI3wyE7t8zAdbnzPOy+gDhMMp28zCx2sxu5S7/fOt/An7hU"
        "v6ux+7u5NI1Bx70LvR06Yz3nufQsp7VfPzk2PzfSsvG4pT10vfQ6sS0XvFlAPTzWNOc4A719wTg+qLiaPNy7BbUfOLozVUB0Pq06fbYpPCk3qL"
        "11rwQ+NbswLw=="
    ),
    (8, 4): (
        "W0DePB+9W7lbvCe7Iq6mt8I7BLUdNTW+HS7LOSo4g79VM/O5LjnQtwexLb1mP/C0isBPPCzDa7uTPYoq2b4YNw+5y76UPrc2UDzqOEQ9RTQaMN"
        "S0ETrsvG+ukr1yu0g7a7XLPcQy3kBTuPo+2LFnuro8GTggOYg1HjtVvJEdBr7ONTlCMC17vCU4Q7DaKsg4jbrKOts/kT21QNEzX7kRuGFBO0Cy"
        "tkI6hDUhPWA4NbkCvgQ5XTw+Oxm8VT6lMdKrl7FeMbg20b7EORvBsDvZvda7pj8vOJidnTR7ugO3x7xov+G8DkCrQYsxcr68vR8libxeNZa0wT"
        "lIwAQ8fjdcug=="
    ),
    (10, 1): (
        "eLOxPeO4qzuYO4qzkLQxrIs5pbjZOYep+zQsvTW6QTlVtXu1pzpTuuOyJsCot8E84DqzsfUqJSxDsAtAAb6zrEKybz/EKT2/KjzMtmC3PzoKPa"
        "wsEb2yNUG1Abseu7Q4TqsRPEQrZbrlOqS1lDktvLgtFr2qtGU5i7j9NaS2FTxdveSu9L50Mpg8EryMutw2LDwEtl2xBTgTOfi4yDndutY8dbtm"
        "rSwq8jMzldyxfj29PI6+Za+EOK05CbpguQ88M7nfOpWtgzmJvYYxWLWMMFG9rTZnqEM97qw+OR69XjgktJU2LTunuOm5HTYdPCW8z7n8ORhAND"
        "RIPNu1krdzO1A/eTLXO6+5NzXlufs7cLgoO3+2uDsjul47L7SZv66wcT9jMl65bTQ2Okm5mbeNv484FTFlNSe8Dh+jvbI9Oyv6Mnm73zpVtum6"
        "IjN8u/Y5sDSyu3I0IDxyPY+uM7yhNby+fDcVtruyGrwHOnxALTPWOry4bbqGN+o7jLfHNrG6DDmVucCtMDnWvX8xrrqmPjM2DrpVv+Uw3rLUPA"
        "ozmbyNN5W9PrrXtt+xDzwzOdq3yjoOtfC5Bj+AvNwzljkFuJkvZbzjN3k/cbcIwFiscrQGPUi5iyEtNcy2STfBMG89AjjPvZE5urg9Ni69xS80"
        "t3I7ibtruUEzz7hmOQghEz7pIgA9FjjevoK4QryXuqM4kLlEPRa3lzb2uIE42LYPPL0rQzg7sBs+NCpNLAm8mTZhQEC9tDaYuAukjTl9Nuq547"
        "kcOqM8brVCHII8jLydL8e2UDU6ND3AqbrOLgu0gz0drT69jzl2vvE7TbkeuHk4tjq1tx80GL2xs4Y57Lc8Pwu21SkjPnWwwTk9ugu38znFPBux"
        "PzscuQy5xrzvNyw0hcD4tVA9q7JGN4c8drkJPa0v6LQ8OX24J7xHOJq7OzeDOrm2Byh7vjylGL8wPKUrkTENvF282q7oPNOzJz7VK/M+Va0+vK"
        "k4P7nfPXO6wDj/uZg4Ci7GuO64szXdPIexwTgMuVq8VzemPtEwAzhHunKyUT6UNO+7ebuEOLalyDpeOey3yzqWQI25UDXNODu48r3EkEO+jxCK"
        "MzM2uiZlvvg6C7k0utQ4nDmHLjywTj+HtSc8JTbetKq9ej5quec1DbVmOUa6JTytMy61VrxHOAA8pLfWuws45b/vNlS8MKxlOWi86jU/upOvVT"
        "6NuTA2t7daOKe6UzqMvNcoUKyiPEc6ybcBMwi7RMAUudI+ozUwNya6qDtvLO+YkD7bMli9W714MO21QTt1PlMxa70FOJA4u7jyvE0zw7RtPd+4"
        "RbyKN1u5DMBGqQk+ADkhufM3i73bLsw4C7YgOAa99T4EtA=="
    ),
    (10, 2): (
        "VbdNQIQyWDwLPIi4IrXKM9M5xjkCPT+oB7lovg2y+ziCtDC9fDO0uUS21b8uvPs7mD59tCw67jTNtPdB+r4svPk0AEEyuai/iz00LDi2VDlDPN"
        "m0/rzFNMa8gboQqQw4ETQyOUW1CL33OGOwAz7XvDG0FrzCurM8ji4ROLi5jjyquam7Lr83M7c3NLdKvYTADjoOrt0xJD46rCO4hzemuQ879rpc"
        "shE4tLIQOAo/6DppP3O/KjaaLZU6Gb2UtjM90TRtJOe6HT2TvHg7cLbiNFe8MripOG48/7HMs6q+/zhCtcA4cj2CJui60ikuPPS+Qbq4PLxAfT"
        "llOfIw4reAPQRAoD7SOl03OLGnvL89XSu5OSO0STuUv7k5A7brvILAvj8UOsGuvrpcJuQvmbp9vhMxWDxCPQW7I7LVvEg8ZTjRv0S80zgRtPe8"
        "k6AruQk6MzfkuTYnAT3uPGe4QihXOei9IjcgtGG4YLh1OBNAfjnsPVO5Pr/vMR070rZINPC8pTQeuv05nz26wOG1XrtPQLIohblLvhOucRvfOZ"
        "Y6PLsJPlHAfrtwsn03urCjPEe2YjrqPva3rkEvvaOv2zbGOymnWbxMMVg8NbzUwAwr3LpHP1O3oDbzOxK8TTdhsqw/tzyevBI1a7UUOB++BLht"
        "qC06/r0/uDqvl7a+ORMwFT4tOdY8BSTivfy7gMBots0yZbfcPmkvojq3s+Q+BrzIOLoxazv3OqE/PTF6OSS8dLh6Qgu95DLYtx81Lz6JtkC7jL"
        "L5PNQ60jPiNPE8D7y1tIC3AzfMt4q9GLevMbs69D3WtEK9tjShwG4+dLh6vbM5djrarwCvzL1OuTU9py/dQEcvVTUHPyS4DTzaElm4HDrXPZi3"
        "fDcpvOK5A75CO341fb8duYY8GLBOOBpBUbkMPg28WaxsOnW7bLe0LRG9VzhYtIS4nDbAvhQ0cL/nO9y5kTj+oki8y7ksQCA5Nz3ase45xii3vM"
        "o9hLZ4Pgu4UThbvmwvmTeRuKazTjTiPLy66pmqtsa96rEWPqY22TlxunY1HT75tGG6g7kvMqE2rzxoPEuwOzrPQBy7RjyAL8OwGsEetFG+UDM+"
        "O1cxqLhHvU02m7QVuyE9azlhMog6Az/Jtdw/ADwONdS9xzubuTwmXaUwOde7zz+fMnw8DbybscQ5UbFou0E11L+8OMq6qLSXtCDAdjVQvDu0qD"
        "7kvkq0yjY8M365sTlyvBi5Ii96Ows0SrPzOve85r9XuoJAyzj9JFK5HzqtPaU49T0qtKG8/roAsWG6kDN0PsI4hLoFGAaoDTLnvtO6XKwrPUDA"
        "pLy2NZm01bpWu5Q9MTjpnoU8Er4zt248KDSwQZS9VT6CNQ=="
    ),
    (10, 3): (
        "1ixrP40yMD0KOlC6qrYitG847Dr5PD000rRyvj+6miyPrvW4jjepujm9N8BavrE8Rj7sspc7lzbzuftAD78CvdGvckCLvC7AHTpRMP641zWlO+"
        "+zSr2EM4e7CrlZsWk3ubpSJga17ryIPGcz2T4Nv+S2ZLzds2w5TTUdHSG4Pz3xuH+6Er+dKso387uevT+9GzrWMzc4UTyYuVS8+q0tt1o7G7pQ"
        "rP43ZTnVNC4/Jj2fQIzABDrDNOM9WLw+teY7lyqXNR6yCT01u/Y5YbjwpI65PDHTPPM51bYOsHrBTzdsMAI5OzyvNjG83rH1Pa+/n7q5Pc9BQz"
        "m2OA88gbVhQMY/d0HZPXY2S7ZWvEk7oyqJPSqyUTrAvbI2g7g3vQfA5T3COBa0Qra2Mk66rbasvws51zrIPUW7G6ZDvfI7ljRNvTK85TcPueK+"
        "wa2Wsyg9IDe7ufE0hTlzOkq0ZB1xPBO+Wjcru18u87cfOyJBZTwQP7S41b8hrPs7uLxYN7W7zTiUvFY2WDw0wYSwRL8YQKaxC7tHvuO4iDVcPX"
        "w6sbx5PgPAyLmWtg40cjltPPOr8TzOPo25oEB6vsctADl9NWs257kFtyc7i72xv/erQ7yoPfm2rDUNO0q9cqldu2NDzjqwu5Y6HrM/NHG+jrjq"
        "MDs34725uSy2Sq0bOS8wQz3pOWo8PDgkwG+8Ub6+udw0qLg1QHw1KD4uouI6rbQiOEc8oj0LOnw/wrBYMcu7V7g1QUy9LjiftPu0JzzOLTe6eD"
        "CLPWE4JTo/MlQ8ILxvtKG47jWXqmu8MLP7NKs8Tz4utg2+EjOiwIs+YK5Yu+M4djcCs165Jr9zuEI8/CcYQHY1QLTlPhC65Dr1ttilSDzBPDSu"
        "1TOTtea5Br6MNV05QcCjuBk8za5VNlhCorvzPua6LrkBPQq9+7Repwu/TTm0uDm9ijOmvmg4P8GKOQ+10CewsxK8QrmOQCs6KT6Ktss9OjvgvB"
        "Y95bgFQOcuSLTlvR8sYTgStKK5HTQHPTe8XzWauKu9h7Q/PdwmgzmBu3E7PD62t9K7mLodqMU1uTp7OtIwUD39QDO3FzjUpp+7LsEKNDG9C6zK"
        "O7o4ArqQv7k4pK1muLg8yT9gN5U8tz4Esws9cz4+L8C+BTzZuCU4JiwIOzS5XECxsDw3u7xFthA7qLabu6A0esBWNqS90Kn3tHW/aLm7vUS8nT"
        "3owPkgXjAQOSi3TKjFveS5RjdwPPQwDrW5OOC8n76Aun1CuTv9OXyzojd4PI0wSD9juV68NLtktnu+NzhBP5AbBL0PNj4y1LnPvV+8V63qPjPA"
        "lL8tOPma675dung+GzS0tMI7OcC6tJg8WzDaQcm7fkDiOA=="
    ),
    (10, 4): (
        "4DAdQD8vtj1oPE25+Lcqr+o5hTvwOLA1s7Okv5u6fTbGrTW8SjkmuIy9BMC6vmM7XT54MGU8JjaHunJBl8DDvOG0mD89vkXAijw1rEy6QzkBO8"
        "k34ryBMN+7cLjxM2Y3GLzmsFuzH726PHYkUD8Xv+u1ZroLudQ5IDhrNQ64rD0SvM+82LwZtrA4vLqgvXS/1zuzMiY2UjoNuTW5zCgxsps7srqw"
        "MPk4xzetNdY+DT0LQVnAzzrJObs9abhetJc8xDFoN1uyDTyju+k8FreCM8O5PLRNOss46yTuqBTB1DR/IF88ST3yNhW+xDLsO8HATLw7PlxC6j"
        "o3OQo6PbTCQBFA3EDEPf43cq1UvIo+/C0sPXK1mDuTvik1ELjSvaS/Bj50OBy2qrnZM+64/7AAv5g8jjl0PTK7TDAHvcM7XDuqvbe8AzrbuLO+"
        "/bS9uzQ99Dj1uo0xozr1OyecSTbqOPK9RDgEu50sHbzhOYRBgjn/Pai4Pb9cNfQ76LwmOra6azdnvlc6Ljxmwh40CsB/QbWxzbx7vU+6dy7NOe"
        "s4QLzgP3bAobhltZgwQzmHPFuuWz15Pr+7dECVvo86+jR6L4k28rmxt/4zebypviao3r/HPcYnrTeCPEm9UbTtuvJCxzccvEk73reRNCm+vLgE"
        "tMk2Br2Euqyx2aeiMvsg1z6lOYY7vja1wOK8T79purQ4ALirPxat2TxDL9c9ebTGM+U8ez19PHU+xbXMLmK6C7L2QTS9GTjzuBK4wzuVqNO76y"
        "erPLY7QTkUN9s53bgmqfC2wDStsim83bQ0MvY+wj0ltBe+pzSzwFo/XLLNvKg1ZziIuPm2qL9qLLw5Oy8qQP6wSLXxPmWzOzqMLaC1pDp/PPat"
        "uC3puEi3YLxvNCA4TsCluL87aK/2NdNDc7xVPkm7E7rpPF+9ObketVW+aTn9uZa9uKkpv0sqf8A7OLi1HTXRuI+7Y7mcQV06UT0rtyg+GT2/vH"
        "A877hFQBm1PaClvdyvBjf8to20RC9uOy+8gDVRuP69jDHqPBazyzsEujM6kz5Stj+85rqrqTKqtTg1Plw1ZzoQQf+6Fji9LWC3J8EtNOK+VrNG"
        "OxY5dbm1vUw5P7jGtf88uT4IODw7eTxps7c9ETxkLK2/iT2/rnQ00q6fNnC4jEA1LuA4a7petno847RVvGwzNMCCO3K+lKSpudK/T7gsvTi8Uj"
        "35vl+zkjjtNqi2UTAGvoy6RDZoOhsyBK6PNuS8Cr+zvdRBkjhCOyS1vjk3PdKqxD9vu9m59rd0uSG9tTavQGQzh7yIs1WkgLY1vtW6OrA7P07A"
        "Hr/EOSky7L4busc9ujOCrn07AMAALBo9SzgkQBe8H0GmNg=="
    ),
    (12, 1): (
        "1bniODA/CCj4LQZABjYYMp48Kjk+ssw9frzIuQ45YK7pMVy6y8D9u/A4fbCJMHU8V8ANu1oxtKtXNdU0+zoivJc2UrrssWO8wr3MMQI6LzymN0"
        "O5wjpFsGY8uLgMveO3GLO0NgK8Iz4ltcarIzyONrW5FbVwONC4GjIrPw80mL6HOPW+3DH3Pfi2zDvttcmm6zj5qTW6+znBvAG81jcLK/aou0Cm"
        "uRY82DgPvE64mjnEOk4k3rWRvmq6UjZROyonHC9qLty6JzuEtlQ5UMDPPzm9WT7TOQMx4TuBql40S7yPukI29L3iNIQ4pLjQuaE9jjmduhO8xD"
        "cdsbi1Pbx+NKG6/72OPYa1xDtHtMS7urYVvlm5/zyTOW88rrkDN3OYabCFO8q9OLaQqv4vPjSzIOi7czCAMsE3ELgyPEc/u7x1PaIw6bqQNQk0"
        "fSG9OQ+4y7p7OKEzAz8QvR+vOLjrIji8VTBHNva8Oy8AP/+4pDj+qvk8iLjOPPqySDj7PVbATrskOa49frYUtfa9pzW1OSY8krAwOe65IjzYtu"
        "O6DK3dvF8xtjkfPeS/+qkdujY1B7EXP1U69LqIspM8ELsQPPG6IrwMtQXBwD3YqSM+RjUZsKm4yLA2MbtA5jVGOl21TDhvvCo4nr3itA89ujYK"
        "NaI2L70ntac8yr6vOiC1izGkt4s+4DV8PcG4ECZfuNurZjw4PWiyILK1Mgs6KL43NCe8G0DYKFMzHLsoNzC0pTjUtjc4OzgRtVq+yrIGOYSwij"
        "envU40MbkyPB2147xstKIwej26u8uuUzxxNJ06Ar3TrgI1BCxRuks6SL6QtOY/xrU8LHCnaLE5M5E9k7JwvEguHz24u0435bvDPfI1p7mhuBk2"
        "EDp4LYC2zz4TLfi896+Ytz87PrvuLEG0+De8uP+rvjqkukc2QTVpMto5YT8uOIu53rVPvTiwQzvZr7y5o7XWtIW9qjI0pU68ubyLPKssyMBZsl"
        "86Oj3INYIzZ7uMpny3kLs1PJU/DbBeu5s7PLg0Ng27STqnPC+1UD5SOLg1BrxztTs9oTbFtOk0s7ySNxG4kzntuWk/PbuOwOwiQjyEsRu4mTmn"
        "PKm5x7e4vZ8w5DxxvdYtmDxcuP+7MjVXNNS4JjzLrfulQDzRPGC3SbziOeg+l6yCuYI5lbm9JeW5Nat8umI6ODd0vNUr1zpouFU7x7ztNWg6Vb"
        "RGuaA5NzJcOjy26ztoufWyWLyFN7C4KjtnKxApojIGvAq6kLe9NWu9Ja+fPk/AMTQivhG5ALxuMA+8DTgUqma8wTbyuJw97Dd3MQu9Hb0gORU0"
        "o7Qiv4gzEzSbOzw+Vr2WPhivCLyAJTE+d7hfLte2tTvZuDQlPj5NtgW+hLgpNG1AfziOutazZTocMQ09FLwNNK6xxj3nOI68XS13vHU6qLGXtM"
        "kzVTnsvC2uRjDWpM65ETcRIfgzoTw7ud8+g7nPOdszi66kNIG7WDW5Pqy/+z0oN9Gwbb3RuuI6cjIQvq21Cjv/Nja7VLbLN2g83L3LuOszLTeA"
        "PGi9S6RavHw3oCQvNfc8abCQsH6+TjpSQH25hjzhuzA8sTaRvNatsr2LNCM7/z5Ru4Sw9jqbOMSvGLyqKbOxErykuDA6+7yTLiQ+2y+qtRQ5ob"
        "WEO64wfj0iuNm1c7emvMI+3zUgN364CzrtvKk4jzKWn2fAQr1ptFM7I62qOCq8QL35OTs8KS3krmw3LjREPBS3di2cNw44CLkmtee5J7nUPUmq"
        "8rUSvFmk4TsZwBC6wrdNPBAuvLjsuGI6LrH3vZM7AKVwqa87Aj5WJbK/JTsXQYO2qLllNG24hTsxKAC97zYEM/HAezoEvFu3EkBeuO026zDuPI"
        "+2BLxYOaq0ATrHN9i8ZL0cLcKzyT60uTK4iDX3NIw5Wrg1wGc4WTaYPJ+7ZDoCu6c7vbd1MdOytLa1vwsm3j36KM847ruHNTewwTlVuW299jiB"
        "NFm2hLmUO7qxtDjYLvk2cLnEP2W9ZSaZt4c7CzIbQFetjrknvVw0xDmyPDw29LxROBK53DWcsja59zu5szC9kTX9vBu8OT16PR407LaZNtmvJb"
        "/irUA5vjMmPiW8jh0NNNS8rjnEumU+tDHWu3g4lSrzt/gyszkCu8Ew/LttN24+BDhhtHqsJDqvvLWliz0stDI7hbdePOy4LTYeLyi52zvAu6q0"
        "lTAcOFy6S7lIvUc2cDaSPZK187JGL/U54LgvLHE9nbonNOa47DB1vdk54DoJvCg8sLnVOGy4tzx/vm681KnlKCG3lbdUOCy9ijxdNDk6nD8YN4"
        "6wH7pSKqU9yLqHNQi1eDmpuP699jZLNqk0G7xLtT68P7OBPDG2+LLuuXw696XPPNyxz6rrMsG20jUAqFsmVDQJPWI3GDpMvLS97LSCKWc7GLvJ"
        "PPG5ZTp9uPE4wrNrMzO/9T4/s+A8rTlju107Qjx0uJWpoDeatT+6d7Zwv+y0CLk6KWk2hLmYuZ08n6tGPuy8bDEYuiA4+zbSvo06jrT0MQC6Br"
        "wruNe/W7bTIwy9xDbduOM7nLkGtfc3gTjRvaO1s7VGPb8ymrVMvru+gKfSMuM/7LSMOS86ar5ivY2ztjvzsPA4VrwSt0g41qzTOlPAh7h3tTU4"
        "QrVeORK0rzxiu2g3w7zzOtw15rSbOYC4QK2FLrO9bDBGu9s1kzdjNzS2F7rdtPEx+TgTvAE+6rhRuoq4kznNOJI+1ys1Pee1jjS0ONa7Yy4WOy"
        "S1yrTYO2K8EiwiIxO5Y77SOea4RSpsOZQ8VbIIvtupsjyXtvg0VjrhvLu/TLioqfk4FTlsPTSoF8FwuP44SrVSt3E3T7rjp646PbxmPJo1MjNW"
        "sXI9TjgouZqzFT3rvVCzHisVvMauWzp8NYC1ab2zrBU6o61duEO/a6sZNl44crUIuQq9/bjztRu4Izs4QBc3iS+2veI8oLilviQ4Yi+yvDW4ES"
        "UhMio8fj6iKci7trnbuWq2rDv8MgjAtq81usI2dzBvtoM7zbw/tpU557rkPUi9QjEEPM23c7itPGQz3bTovjCr+7siN2w8ZrCwMeY6Ybk7OG64"
        "FDsoN6S1PTvWuUY9XiZltQ+5BakaPK++5bjQvbkv5Tk9PB00yry3tTQ6DD2DtT+8tbFGtp2/kDp/tDu1bTrNOpi8pTkNvq64DjoAPZO8TbvxMN"
        "GwEzW8uAc8oTZouUg7brQ0veCMf7k1sIo8WztFtqIyFTmquIas4LoLurqnsi0mvL85KTwGu7CsHabmvxO6UDkSwD20HTcHQGU2UD/juEg4nbUN"
        "NekyGj5/PPu2OjtRuvy84bOjPBOUt72aNk47l7fHuEcuWbTAOGC6dbsAN1O40TsrOBQ10L06uQ40VjmMuP48sa30NYS5VrUcPBK6AywtOOa4PL"
        "tJO3S6KztHN4W8jq4IrXs3gjVauuG6IzIiPU0tYr3QPD2xKDbGvAQudTwYMHO/HDOEuRq9yrxENgo4jL0pJUA+FTXCLztBeDyTqvi6XrFNvGEz"
        "ScDPs7E5jbiEOHW6sbeYPOah+LpbwCA8PLziNhQ4+bRTNGa8eTrFqB23Rjd6OQGzrjhZtsm8OqzLPesuI7t6OaW7rrYgO7GrMTWWvB69aiwNui"
        "875DB+t/m2GzyVNY+6la2qoyE0FT2Eu9A6krffNNe4gTzqNGy+2r/ktFi0LTfDO5C1P7ozvJg9YzEduF+4X7kdOA48ajtfNKS5+7GzM1I8zbp6"
        "vYMyrjiou/q2yTxGvjU5L6yxtlQ827fTuKY2vrxSOAC6Hji7rqo8Na2YvPu6Zrl8Opg5pDvlMIK2vLmkPzcvNj2Ct1O8uC8XtCQ8m72OpvA6Nr"
        "iZuO49NTwBt3sd0DlSLHa9Kr+Lojg5W7uoMf62BbVMPOu/LT35tyIwnD5pPA89ubr3ufA32DlLsF6+g7GptZE6/bR6OIu8ATnKPFC75a2lsWI/"
        "DCw6NcG7NDg9J+0z8LgKNQO4vDjwPTcxCjqdvJAvHLqmPc48dLUWN6A6VbFdt0o2ObixvooxGLlxueQ6xqfdPqmwaDwxspI8GShOsIe7dTjzp6"
        "O6iD7qOaq41TRouzA4Db3wspQ8vrwQNEa28zouvXs9KLj9uJ01bj9QLLq57qymO3M7xbmVu+865zDHtAU3fLqgPvcpIj+aMHS5CL6fOH2yYTnF"
        "u5q8uDK6PRq4xDWIvek1+rYaub+x3jQFvdy03TxQO7+4PLcHOQS5CbIzPjW7/i6rouw7l79kPde2cDWvuw2taDXcuPY6lC/uvuQ2u7hpPT24hr"
        "jzt/YwHTtkOQm947kqI1S6b7cIPLAxuzvCNwVAhrhNvOq1gDqLttYlKjPcPe6yRTIkuBjAJrRkOFi7QDqmNts8SaTGuw4xADK9tPW61TiQL049"
        "vyY9vngpSb10tl87uDrFsgi78jSvrlc+gjg2vRg5kLpfN/G27TGLvQW3DTxFt50+N8AOsLoyMjslvzW17jbDtmO0VjuStuA6Rb1vrpe1MDDbNj"
        "M17KxLvNc/S7zVuEo6BjWFORk0VbqQuaY9Vq//vNwrNTuRuqY7XTIttaY/0aVduKa8FLxZOWE6F7mru9g0zz41MAu48zHvsCk8LKxzux81xjhP"
        "uwE6MDwbPcW32CypOL69S7fxO6msGLuAs2Q0sjMCPHa4orCaOdC7fL87pWc4NrYhu3Gx97VAOoRAajk5vhIyBTkrv3i4grL/O3a9+zdlvDs5k7"
        "R6Owm5YTo7uAYsqz5uvGk4YzSOMso9PEDBv2q4FzBTOeY3D7rOPPK8PzQAKOA5Hb6Vtxo2gShKLPmosLlHuFY7ErxDOlWwCrh0PFE5VLVvOSW8"
        "7DJktbk8EDdfu5M1Jr5JMXm4h7uUMb49WLqluTw6cbFZLo4936ymvWMy0TIxqAo36LyCvCgghDtOtwC7LjyjvBw46TcPPVa5krQYuJc6HsDDtt"
        "g4Prf/OnQ+wTFAuUc/9RynOaKgrT3puSu1x8AJNNC3Vb7JMvE1Arltu3E2yzrIvCJA2Tx9uDhAXh/3tbg1AzCXtEKoKTlRvNe4HzZWwLu21L19"
        "vQwxKDxksEMhzzwavp4+3jCLMgi9BhjxuVo8sagvuXc52jOWN5C5XzoNLcm4gjm/tLs0tbggwNa01q9xPX09oLbgOAO+zjxetUw8yrWVsUw9YL"
        "s2OHkrXDZWpSQ4FrYBJrs7SLxau5YzDjkcvWi0K7E0v3I41rTbPoc1DbyfP8i1uazvOPA84rOotdW9SDwDwMwysrSQPNe5Wa1ot2g64rhmOgO+"
        "S7aIOwa4PjxTuKOqEbLyPMa4Zb7IudqtUT2BMJg8hLyMNyanVjFPvNk7ibAquTW5TT/UsEM7gCtsuWo6mrjJOPM23LQ8KL48wbnOPok54rTlrd"
        "K8V7P3O2U1LjttvZc+uiW0wOKvKL4wsgozJrtkt6UmeDwCPBIz/754OnivjyzMugC4WTmotw=="
    ),
    (12, 2): (
        "u7kMO6E//jFgMihB7SxHPAY+vz78ups8M7hxsT85OzaQO6i6acG5uiw2jjvHLr4/bL/ZvLAyaKLJJoAzGjyUuhqljLkOOEm9tMBfshc9Qjt4NJ"
        "26jz5Sq485Y7m9ukO+NjfSOHq00j6pNBunBj07OQa65LbiODy33hcfQCaxdb1kOqC9VSejPUawjDuKsCa5ez8NO4i4XjUyvc27sDoppQw3w0Bz"
        "uAQ9YTj0vJO2Xz1VOIAxmrk1vTm5PjxsP54ySzGTspy8LzxFuQY8N8BWQCO/Hz9yOsYyvzcXNZ+ye7g8u8wxcL7Ctt45N63pvCU7dT1uuFW8zz"
        "Z7sUO6G72CMm6/Rb44PUQzE0DqvF7A6rrCv2G3JT1+PNg7SbmANVAyWbJsOZi9krSjuN2l9DlCOQ+8JbZuuFk1dzDQO0s/bL0XPRE4yLkStGyl"
        "KykdOwW6Rby5Mjg8IUEovrUwO7xyNWG4ubMsOF+8Vje6QJi02TnzNgU9GbH+Pp+1XjmuPgPBjr6KO3E+T7Stt+jAjjbqPNA90isPOOy4pTqQJX"
        "u7XLgCuhiyOD/ePFzABLrruxqtvi08QcE6T7pRMPk87Lz1P8i9u7wTuf/AoDg9swtAOz1NvR2+XzZsNyBDZjNRPE61uTICuws6+r+RuV0/Szt9"
        "Nok4wLwDsTs9nb4uO92yBrVQsYE8pjkzQEq5AzLHvsyyvDLZPAu4dDTeKQc5LbzCOU+7R0FEIbY5Q70YrOM4Za0numgpeDtptUS9ULa7OP+2AD"
        "KNvT20q7pbPVa9Sbg7rKw3cDwtuXg0YD0nOJo3XrmUtrM52LFQvDMqG79UN+Y92bxmuaU1NbUWOME/JLZRvLE6kj02tRc1iL0APmc2zrg1tLUv"
        "XzwWOte5rz4ssU69/bSJLDM8r7xgtWS8fzPIN+019j1ntbo52zJpOZZB0j6pOLa+6LQxvPqtNjjYvOu4oaR+uo7ATrP5uyq5z70gOciyRcJ1M0"
        "48BTtTPbIskLhJLsi3Sb4jOjVA/a73u9g4G7WRMPi/0j6APUw3HjukNYOuf7w8NSw8fDiXtN61RrxbMjSypzxAu30+5b60wWEzqT1dtY0yTjhS"
        "ODG737bdvII6DUCGvFGwOTyLsO+5VDXYLM+7kznEtlcx8zwMNTa1/bhEOy5Avjtbvv06xrtDqgu7+rMNve04OTfjuQGwSj3vuPI4Fr2Itvs81j"
        "KkuOA5iy0lPOmw9j0cvu21lrvoqjy6o7PZNMo0CDoQvaa6MbSKPHK/qDSqPkTCdTQnwJy89r3Jswe72TZTtGu/YTS2uq48xjhItIW8wr5zOfYx"
        "Z7hiv7e5qbIkOiI/G8B+PLgyT73/t0pBkKx5Mru3rj2avMuwpzzGtgu9UbhfOKlA/zX1uQu0szqQNR49PbxrMrgt10CZOOS8A7QpvU08BjTer+"
        "Y1xTzNvgG4njRmtJe4DDC+Lfo2pDw2uTY/oTW2O3EwZbmoty68HzaUPR7AaD/0Oquqw75QuhM6TzZGv9G4LD3mMPi7LbjlNVk+KL8nuzKuXjid"
        "Ppi9QLTouyM3MLRrNJ0+qDYXtVW/izt+QIiz9zyduXE9eDiOvVW2+745PCY2Gj4UvOKwNz0hOSO0w7xvuLe2zLxCu5cxLr0UtJ88ni+TN8o6Eb"
        "BFP1kvDTwXto+7ZbkOu8Y92jerOvixMTjQvbcxtzodMoLBJbvUnh88KzrJNIW4m7ySOJ49mji5JRI6qjyvPju2IzfxN2g9ZrmMr727zLwGPQUw"
        "z7b9vHQukzo6wAu7fKxcPmKvU7gZvQ05WrfnvNc2tjlTrRo8JEC4OPK+uzybQSC41rnzNVS2vzx8sRS8szoAsnzCxD3nvru1CkAjJwQ65zTQO7"
        "0tArnqP82yLT3TJV6/9LzruOerSEHsuI40aTtiNm42+rmlvis6/zaZPS+w1TnJvQ09VLUbOFu5Wrpwvl4qbT9itA01p7tWuF8rqjwOMJe5CjON"
        "PYwhJLoLPMY4uTaPLLI6ILlJQGm9w7DzuGk5/TYSQGez57qcwFkzBz1ZPCg1RrxwO7e1pTHjrwu5DDyxvYLAezIVuz+9bT8PPMU0tqu9Om63s7"
        "7ztTQ8rTZcQG29QLdMNJC6gjWGurE+PC1Bu0s4CLHNraA0pzwluHc4X7jQNlQ9Jjy5uQWphDQCvaQy4z/HuPw8OLv/O+22UDTLsGa8ijvet/O2"
        "5TVNNkm9c7w7vsGxCDRvPuuxtTLAtbg7g7EvNmc/kr5ItvK7/rXcvNQ5uT2Jv8M65q9MucCwVTtSwKa9CbsQKhqv6LhVOhK8Oz0zLLI6tkCENT"
        "I49bkCI5Q8ubkCOf2wsjdIuiu+IbVvOASv4bsFMBK+nrhoPR8tF7Z9vPk5dTgVOyso/bViupq0JzOIOF22vzdXPMQ8jTVdvU29FbYLFYY0jLsl"
        "Pr+3nTW3utk4Krm3OTO/Pz8tNmI/AzyOvhw7xD35NzspHzrZJ+61grlZwOC66bhKtdcy1qoBvVM8OrMMPh68kC9XtRE3Bzr3vZg6kLRcNJi8Kr"
        "3fsLbAkbcDq3O+W7STu545YLthsxIx+a+Ovta5SrxBPkI3EbTHvfm+HrOLOfA/T7rkPB44usBZvkm6tjTRtEYzu7vCtY06tTKoOo/AjrkEuBgy"
        "lrjQOd+wYj3ZvGA4Xb6hOWu5ubiwrK67aDTtOlfAMr0ruhympDnNNQy1prv+LSMv4rOkurk9IbqRvc269Tj1NSQ95rK1PoCzNjalOYm6czeOPs"
        "6tiTFjOui97rfJsgO7w77gOia6a6/JOUU+y7QGvrMyujv/tzOyjzxNvsDAyru/tk85+Tv5Ppm6xcBovC493bFFtoo26rReNf06vretPAQ1YyxA"
        "oHU9WjidrmWzFD2WvlG5PDlcusoYfjJuOKO1wrw8tf81BLTSunW+rTVqtFM8mrzitbu9+7jENlS3Uzp4P1E0ADEbvuE9RLjsv1o2qrQHvLa0HJ"
        "/dOk47Iz1mMqi83LU7uEi5ljunM+G+PTLxuZSYZzdOsKk9Mb8Yu+A7FcA0Py69cqlUPDiuD7xJOgE0CLiyvHa4Vb8BOEw82bRcM2Y7ybiVNYa9"
        "4jzaO2s1Dz+os9s51TN2ucC20abGOz++1LnDvGu1ZzYHPEE4YLrFKdk82Dd4qgPAirnytdG+ZTXKuaK1Hzu9OQu9WTecvtm60zv8PgnAebtImA"
        "q33bCmsrg9Sjx7uk03aLSnwIOumL39uCU+1TguugovGjlvsPW3Tr2QvMoyGDeKu/w5fz53vA+kDaYCv2u4ozqlwOK2FDcjQUw7Kz/4t/U6aLgv"
        "MzM5jT8GODudGjxRu0a9RbVrO8Ay9MDwNg48lrX+tlW7di06OWe5hLs8MEC2kj4rO+ojvb1LvIamjTROuEY8OKSbutu8ZbhxPAq8yTPuNFK3Kr"
        "20PWq5kT8QM8y8zbRwt500nzpJvIa4CzV+PrO7Ir2vPFooYTByvH21qjtyuRTAsq1dvMe92bk1NHI8O77hr1A/xTmmOudA9T3sKaC5BLbHvWcx"
        "rb/GsMkvWLkYMDW5nr5AOjSJXbuswQg1nrylHNU56LlntWWcbTtVNz+51zwzOb8xXjBMta+9zrnHPFkxdbu5NnS7YbZrOEwwPDhKv5K8ALeDvi"
        "M8lC2muDS4Gz4jOGK1SbXbOOU0yj0zvdw6NCFjrJW7fzpFLtq/4cB+vb6yrDoXOs4wobs/uXI8QDKDuEW5HrkpPmc6LzhJM+i1errmMd49mLzx"
        "wJS2rDY5vS21eD1Cv5c7zbmtsTs/bTQBtug537xnNtm4ryihLwg8JrR6vnq9V7luNDQ8OjqbNrekMbneQDKoQDvRujy7E6JXNuI9KL50L6k86r"
        "lEvpo+MDqNuGq2JzEOOo29vsCSr6I5JbtGNK+3obEoOQa/eToJuwao6j9yPM887rtIuLc0PTl1rY69N6Y2tyY4CTAPtxG9uThoPPa6cbONNlw/"
        "czz9N7G7LzdQpxY73SjPLmq11jz7PEwQ8jpsu481O7zRO04/rrJMObM8hrmfo0Y5SrkFwKQsN7kwvAIvRTerQEG0DT1IvZo8jTftsym9+zmyqC"
        "u5LT4qOCm8ojLOu444Kb3atTM/7Luxt0okgThFvOg9GrdcvZM3fD1etw63dzM8Pvw8Brl2v0BAISUXu9M3jbvGPza13T2GNwO5l74FPAu0/jn0"
        "vhq7pzbhPhq0OTAqvQoulbi+sMworjnqvfQ4+j20O98u+Ln2NJu2viVaPSe6lzE2ts46Fr/tPjK6TLLFumU4CDhwtaA4zrtzvtk0jLYmPca5Vb"
        "uEtI0zezrjNHW9qrqlNsS1BL60PgI5Ej6INbNB2bl5vC+2SjufMTu54jTZPsAt0jhOq52/i7ocJWm9szd/PH09PTm4vW6oZbSBtYm8vjgPNyI9"
        "C7SpvEe1P8AELmI6bjs8r6S8HrQntfM9yTWqvHsoP72IOme61ykLwGq44Daxu55AIsB0soiuSTn2wBS7nRrssAc4EDx1t3Q7T7wVs4W20DYBNc"
        "s7sDS+vDBBIcCwuh07ITRpNV+ifb3Atys+JrfGvskxkzsKslg8ODSqu8dAE6zBuZS+072uPIQ4tLsOu200OD+SO06pKTcwuHg8lTafteg63DXo"
        "vYg8FDlGPSK7la1LP2+/tLu5PiuxcbtesME4GjtQPrO8BbQYOTK5ir78nyc4EbnKu2y2wrVnOElB/Dg/v62tQz1/wB+5CDADO5W86LaqvBw8ar"
        "VzNEm6Ajt8sj4zTT+4ulE82DGwM7M+4TruvxG4CrDkOgw0lrn+PI67FawgOAI5Gbzvtc4rMSysNr654bbkt9o4jr0WNSI5SLciQLc8t60INqq8"
        "KzqRt1s7WbCSvTeeCcBCNum7a7x9MeJA0rgcvCewBTnANfA8MDhKvAy1P7fhNOmsxL8/vmAxbjymt629cjwouygyTzalOgq6l7QBu905FMDwtn"
        "c5K7q/PeE6fqvNuv4/0jRpORc3oz1UMyK1xsDitge5YsDBOCs7ObSivfEwoTt6uNI9iz81vKlBHLeqK6A5ErDvsVS6H7PjvCG6PrJ7wsK8E8Bk"
        "vaslmjy3O+0wmjr7vhE+vDh7q0O+obiIuZs8IDDYuUU97DgmLZgdhTZaOy214zlorja0YLqdvpa4Wa15QLg96zcWO4G9nDw7roQ5PbVhsp09Ob"
        "oUN8g3XK15unI7Rb2FL1o8NLrsu7Mu2jr5voy67aq6v8mkgbIOQfM5pbyIQKC4EjgiOdw94rArvC3AAT3lwPsyyrZxPFotNrZ0vM81nrcXPRTA"
        "LbQrOMC6GT76uTO40i28Oly7v70AvQMoKz0dOCY+0rplsBI6xrJuvQQ7uDT8te274D8hNuw80DDsuMU9RLjQNB44/rjwNFg+3Lp9QFw4KbolN1"
        "C7niytPFiypzfwvZs+0SwowsC38L++MKE5krzPtQa44jp/OCGov7/5N3651DMfvei8dDcFuA=="
    ),
    (12, 3): (
        "ObkXOh5ABDpwMgRCZzXBPGk9fD+ruas95LZfsDs7mTcSPN+5WsB0uAM6pD17Li4+MMAqvlM3QrM6MqI57zz5u+AvprqfNn69UcG+s0I8Fjr3LY"
        "W26D3nNo46CrtJvD6+LDkfNUa0E0CIN4epNjtUPMq6tLc2OeG3qi0AQVywbb4rPG2/wbGcPkGr9TrYKru2Bj3rPUCvRToOvP28nzh0MPQ5zUDv"
        "tfo+mzravOm5Sz32Nx4veLp0vNm3VT0LQYA3xzRKoHe9bT10tSQ5YsAdQEG/V0AyOrw0KyyqNiO2tbRmu0qxkL5xuWs7SjRSvQE6vTy2vFu9az"
        "nctRW6kLugqwO/OMDaPJ05DUDBvDC+zbpPvxK5sD4yPfQ6rrCwN0QwJ7nCNI69RrNouAQyzjpYOvW7j7WQucuoNTCkPAxAB74PPYE2zrjqKRol"
        "sjbcOpG1t7ogNNE8pUDdvU6z2byYONC4srHcOXu8hjbaQPm4SzyyN0E8uCECP+IoWz3YPZjASrzePQ5AuLkgtH3BBTkoPFM9ZTQ/O3OpAznVsI"
        "S6TriJvL0l6T+5PhLBxrj+uietAq5VQfc8HbtZNU4+LL7SP5O/Or0cuv/AmzrTsydAFj20vH++NTN1NdRDKzqsPFu16zDqvHg2F78xu6c+fjzm"
        "OXA5h785rGg9pL1wO263yrr7rrc9STryPza7J7OTvgi34TCiPMu3tTClNG46Sr6uONO5UELKtEE4obyRMIA4ny89uz611zu/uBa9oLR7N0YiPy"
        "0ovjCwsrufPFG8IbkIuIU7nj2iuIs2wTsGOWs2tbv+r24uqLdTu442ZsDfOFE+bb8wtzGxxqIBNmo/Trj1uxc5ZjwntVw3IbwZPgwxOruRqgE1"
        "jjpGPAu6+z5XtZ69SLJuq6w8jLtOt026BDlRNe44VTuSrGQ5cDV9PTpBwj+nN1G+4LTMvFa4Ca4au2O5a7NbuNvAMK+tvK+6EL7QOo0wpcKdNM"
        "A3NzvlPJ4hz7qDoCq4fr05OSlC6bJLu8Qy57ahMJrAyD0NP0E6jjyMNSKyd7u0NqQ7OzjOtle52LyfLG2yPTy/uGo+iL/TwWIslj4EsGc1EzmB"
        "MCu9pbhQvgU6u0AJvJOyUT5ELwS50TZlNRq6njcxt8kwfzvGOc+airvaPLg/QDpJvbM85rspsoa8r7cMvqs6Vzcpu8OsXT0MvDQ4Fr3RtfY7MT"
        "EItzw5XDerPNScdTxtvQC6rbsLtfO4TipNNXOx2Dv+vfy767UTO1q+MjXOPmXB0zINwDLAmL2atyO836MytDu/LbeFu307Hjpdto28YcB5OJ8x"
        "bLnDvq25DbMsPJ0/u8C5Pck0Wb4YtjNBmK1eLZ+3tD4AvJGs5Twjtwa8xLg5Of5AfzXPuW2tdTpzOLE8xLzJNHS2mz/AOBG8HbZ7vaE7BywMMo"
        "U43zvsvzu2xLJFLwW5RTD/Nys5yj1KtMc/6DE7PGYzXrpMsVK8lznNPeXAmj/WOyiz670avUM5kzDnvy65Dz4JsgC9rrhENLc+775pu8Y2EDvH"
        "Pfa6ubCGvcI4hyiiNvw+lzkMuFfAJTwwQEy0lz2avKo+Ujngvoi1tb6yPMEyRT0ZvKezdj7MODO4qr7Uu++4PrwAuy+wHb0ruBU51jLANJE51q"
        "fzPiG1czyvuM26g7iVu/E9nTKGOUqv9zcGvhgy9jjetH3C37z4MHA8GTwnMz668b3BNc89NDzUOVU6TD0AP5yo6zlVNpY8WrghKrm7DL0fPYgv"
        "p7Q5vq02XjoRwKe547PpPYEx5rrovAY6fbgmv/E4mDieq0I8qUCCPUjAmj3SQTa0nK+sNrm45juKr367CjxoMynCGT+wwJ22gUBXNNk5TTiqPJ"
        "E79LXDPRS1KDw/rJa/i7xCuXczPEGTukisnzkoMqkvI7jWvR44yDE3PRCowjkavVo7ubWQNlK4qrq8vYIxBz/Mssc3ubmltAIwzDqIs6K5Gjbl"
        "PQU42LjaO6M4iDxrHp41oLTlPxu9krZvusA81DVkQOwiYbZ1wYk1Hz6FPF04rLyYOpuvKjZUKnS3IzoYv3HAQLLQvF69ST9sPPA4CbCCNLW4d7"
        "/ctDI6FTdhQJG5brqbKmO8bKghu8Q/Ia6fuQM2sjPxtjg0gzzVt1M3ybxvOYY9lDveupW5izczvDetlD6BtiU9Q7veOQSyDDMgtzO9rzxBuhm3"
        "STi8MnS8VbvkvaKwYaoWP/gyTrdCtlg9yC8WqUJALb0Jtje6LqjovoA9Djx2v+88uTRFryW38jkFwJa+1bt4rD61zLcdO0y75zy/ML44C0HTLu"
        "wyEbuutII9Vbh/OMS4yqRPug69IbZRNRSvq73DNou+yraePdSzibtzvOw7UzlfO2MwD7QAvD+4vTBAOKiz0DdoPRE79C9ivWu8SrmnLjw7qr10"
        "Pp64uziwuZo0KrTJPOK+iT5AN1FA3jo9wGg5Jj3HMnA6NTxIMH+2W6sBwBm5T7qTu2W02rE+vX0727nnPti8A63otPIy1TeSvrE3erWDNzi6Nr"
        "5ysNS/Rbx3LpC+e7ObvPc42rgFtpOi87MWvu25RLxWPmUnYTQLv0zASLOeON9AUbtDOwQ0h8EbvjG596pLuKisNLwwuKM0dKy9OkzAgrvMtSIy"
        "ObeTN0C4LD7Gve02gb8dOgqw6LQ2sW65WTYzO/e9ML0NvPmuiSzcOCEt8bpptk83sLOBuKk+X7slvcS4TTmxIJ4877LKPue45DluOxK1GjU3Pd"
        "msAjC5NxO9XLEquJu68L4oPBC5hCymO9Q+hrjkvlU33jist86soT0KwLrBY7yMuE47rD1MPwO64sFWvFk97bVIrAM5u7gKPBM7x7R6PQ005y0z"
        "LIo+oDbSLta1jzw4vhS8zDlZulczvTljOKa1db3VsRo3X7V1vD2+gTNvrvA6jbnquui8+Ln1Nai0FTwvQD6vfDSLvKQ9nLdzwDE5RCqNvlit+r"
        "mkOk089T3DNxy917ZJtCK5Qzv0NnW/fzAxvQKzfjmLsqU83sByvGA9pr8DPwK/0jTzOfuzbrw9PCGxE7lfv7G5/L0JNbQ47LbXKVw6Q7r/LUG8"
        "ZjxzODU3BT0htXk2WTnVuBGpL7RBO8+9erqpvf60VjQtOU86TrqiJhQ9rTQQtBfA8LBft36+yjVxuzu7KjrTPNy83TbivxW+1Dr1PL3A5rw/Lf"
        "G6A7dGudY+FTyKuSo3GLcQwFAq5by1uuI9ZTpltkcwljbbsNu54r1avv444zS0vJ46zz5MuwKcMzHdvle5Yjm2wMu23y0OQrY93z81ujw8OrDg"
        "MeU4QEEgONu1PDxxuQK9K7MoPMo4ZcPgNWg7/y0ztbK5IiSqOU+8nrp4NYS3UkAFOnyhoL3ruo01EC30uL48GrVgvla8LLZSO6W5+DUbLpuydr"
        "yWPbK6kD+bNum89biLthIpmTqpuDa1K7GqPlG6aLwBPNsvrifXuHKiTTxevpXANbc7vMS9LrzQNCo8WL+6sEVAUDllPH1BVD6lMEy5KLggvnuw"
        "+L+JJpC0MLcANkK5+b0COVcu+bz/wrA4VrsItD8zt7juufaojDdtOqUlJT3tOek11LPjsyq88bkZPFg5QrnLNP26dbFUOBck3TOdv3G9BbgDvo"
        "Q7Bri/uautcT89NYGu9iocOd01vD3CvKo7A7LmNFu8lDlINmu/ncDuvRCyfzzWNREzlb3RtTw95jlwuwG5TLljPEI53Tn1Ky+yCLU6Ma49+Lw+"
        "wMS62jS5vvC1i0CJviQ7F7uEu9ZAayaCtVA427yUs965UjCiL7w7kLTdvvy8nrnoOcU51zwXNliv17aQQYC2MTqKuOm6AK7iNXU8jb0pNMc6IL"
        "jav1g+yjxxu0mqRjRgN4e+jcETtoI7YryJtiqvtKV4OGnAFzonuDA0ID9gPRU8Fbqhs3U2kTnuNNW9lDP+t3422ixgtZC7NKi+PJu46LRLNtY+"
        "fjwcOui74zcTNfY42yiUMB22LDtUPQc43DsuvAY5WLqgPQ0/riiyNy88H7jgt6Y5kbq/v5gq4LvUvLqxjDO3QFuswj3RvWc81CxQuNS9FDomtG"
        "K6hT1sOi25UbIgu7c1i7ydvlE/K71Is3suhTbYuog/XrhYvGU5bDxtsPa21y2/PrE9ILpxv7xA1rajuw415bzNPumwBz5VOAW96LwoPAEsRDr8"
        "vnm7wDssQNu4sy1NvTE1N7RIuHgp6DmxvfY07z7GPKU2ObjzM++4WrF+PyG8/rKyuSw8zb43P5a8cbQLukkyWjgpu6k51bkUvZI1SrfUPAW2hr"
        "g4sg61+zuYNhW+QLuVOUG7Br4bP8E4fUDPK+1BMLgRu2CyKjiJKQa4hzNuP2yp2ziFsKa/sbg+MUe8TDucPKA9NzzEvrG5FykTtfO77zndNbQ8"
        "5bIBvSi4OL9vJgE5wDgls+a177hHuqU+ATP9vHS2T70hO7y696BgwLe2vTTqudc/sb4yt94qaDhFwOy88DJ7OKU4kzukrBc8Q7oKsjewZj33OC"
        "c8zDTivERBpr/Jvbw8wDfrNF210bqFvOA+7reDvt81qzpDtpQ8/ySBuotA0LVPune/071cPUk6LL2Ru38zI0DCPOuwDzkOuHk+cTf1suQ5RTQk"
        "vlE6RzycPUm9J7bYPhzAK7vdPHC4ILwuOCA7FTs4PZO7GK8pM3C4Q75RMX44NLTTuou5J7LpM6NCFDqAv6YxFD0rwQy1ejNOOdu8pC+PvjU8X7"
        "KpNci3jjjurAG4vD49vFs8wjhHL1A/xzziwL25HqgVOHs2q7cUPWq+/KyZOHA0CLy3uMKnjrT2N4m68rgaseQufrzcNXY5s7oQQRY+Dpz3NNm9"
        "HDtxuBY7E7BkvhI4dcBCKrS7b73OOX5Ap7hzux+tRTUlNOQ8ajmCvUgs3rduNiaoQcCDv1E1+TrCtkS9vjxhu1Gt3TS4N7C8TreEuVw7b79psp"
        "w85LogPSI7xTTktkU/hqraO8g59D3+Nmq14cDRqX25dMDIOuoz3LFevQs4fTxkurQ+RkDGuTlBKDBds/c2I6uWtC+7Aa3jvRa5HDZ4wee8R76Z"
        "vGquBD2SOsEv1zgDwKo+fzn/rw2+0beTuWc8hDRXuQU9fDovM7yzCDbLNwKuJzgpOLUwMbMGvz+556ndQA48xTfMPCu9OjtkrxU4HiwmuDQ+Pr"
        "tfOSky7LBot0M8Wr5AMDI9U7ySvO839jpVwLK2AbEhwAgwFLmHQAg4DLyYQKe2DDtAOQ89F6c/vRnAwTtYwXM0TLFsPVi40bGLusA7LLgTPk/A"
        "gbT0PYy76j/yuYu4PqtnOp68nL1TvDyz0j4WOuI8oLtptro0qKdOvlQ9KTkot5i7BkAKLDI8uText+w9vLh2NGY7f7CcNzk+Gbs0QMY43Lg0rc"
        "C8ezKSPHQ2xTVLvzY/OKzXwT232sAltR8177uLuGCjCjzJOB2v3cDeIWa7JDMvvVe+WDqIuA=="
    ),
    (12, 4): (
        "PLn5O9U/gDvHNJpB8TeSPNk99j48vBw9drZFsqg6ETmWPAG74MAZufM6fD6xMcQ98L9VvpU5Dq5NNkg4QTzpu94q3rlQNWO9P8G1sAs8sDkNNC"
        "m4CT79NzA5K7ztunm8QjhcOHS0yD9PNmeuTTqpO326XrlVM2u4azD2QC+32b32OUa/RrCGPrCoOTpTKN21kj0lPdmySDu3vFm9eTieM6o7T0BU"
        "tD8/FzoxvN+50T04OPUobLhdvTa1wDw0QbU00DS0tAO+gDxut2s4YMBcP1G/fkDSOqQ0iB12MfS2tLJiuXqdmL3Wuxw8zzQdvWc6LT2fvEa+LD"
        "mEtmK7x7p/sTG/D8A3Pfw4G0CfvTm+Ury4vuS6TT4HPb86MLDMNZsvhLYBM8+9WrIVuNU0pDkzO6a8QrQpuhYsTzciPZFA+76kPXU4hrgwHlAv"
        "RjJzOhy0Xru9Ns4830CwvVSwb7xFNfW4La/XOXW6nDY7QMO15zwOOGQ84S3SPuEyqzvTPWLAwr3UPcw/67qitQnC7zdjO8U8ozOuO9kqdjnXra"
        "K4drm2vA4qPUApPrjAarhZunGxgqoGQdE8BLwsNqY+1r1sP16/Zb45unnAWjv0tH0/Rj2CvC+9njNrNilExjl3PIS33zEavXU2578qvOo+IDwn"
        "OX061r6lr1M9870nOki5a7jCpZg+2Dq1P3W6prLzvlq2sjJFPa24SDg7NLc5ar00N1y7z0KjrNY24ru1Lpk4KTUAuie3VDoQuVu957WwMqCx2b"
        "P0vGOwRbo8PTK8aLtRt6Q6eTyiuE01zjttOTs487mWsDM3s7RruvExEcD2M609kb4Ht5gmLbHiOao/qrgvvLA4GjzLtaY0fbyoPXowzLu7Fw02"
        "VDrAPN+4nT5Zs5K9A7iFNHA8wbkYtBW7lzdLNco4RDv/qcw5gTHKPcFBSED5OG2+MrN7vaS3NTHnuYe5WLULuKjAcK9mvPm6q7wHPMOlf8NuM9"
        "MyiDoDPSyy5ro1KPO4Hr1DOBpBgLUrvAY21LIKM1vAsz3vPr05kjxjOHskt7kTNjY7qzdwtl64MLwoLWavGTwTuHk+CcC4wcOgfD8nJwk4RTmM"
        "M/W8M7bwvW84uEBBvE60Nj5TrWq6mjTyNTm5yTj7tn8xSDqqOwMsEby6POQ+rTtwvSM6Abw+KyW6FrmjvH07xTXVusy0Pz33unQ27rzNt/46ID"
        "PcuBU5czidPAesfj3PveC5JbzYtKK4HawQMX+xMTwZvWG78LUIOp6+HDU0QDrBYzVzwJq/c721uO67TbMXrky+1rVju3o47jmyt7i8/r8yN6kx"
        "F7p+v++5TLa5OvU/icCkPn01S75DtHtBwSnArHW4nz2SvHewez0+tI26dbi8OCNB+jX/u7OsHzogNG08Jr1TMyq2AEAhOOe8EbU3vu88gDQarp"
        "w5GzwBwIyzqSr5NMK4yzH9MWs45T6asQJA5DUkPV4wZbvrtsO80znLPRjBkz62O2mlyL20vD871y95voC5GD+Lsyu9b7fFMxo+JL/nu3w3jjuU"
        "PiW82qkvvaw4YzQwOBQ+ZzqIuH7AiTzUP8S2GT2RvBk93jlHvs+29r6WO/s15D0AvH25KD+1ON+5ib39uuy52LphvPGpB7zZuOI5oC9LNxw7Ga"
        "/IPsi0eTxauSu3z7gwu1g9Tjj6OLSybDjcvXk1wTSctqfBMLzuLR88qTqWN/a50LysOIg9zTu2Ols62DwUP+UpUzfvM5A8Y7YusI28er3tPIMv"
        "Fq9zvmM1OTpdwKq3BLWsPXE3R7oavBU87Lkhv6k4zTqDsRE85UDgPCzA5T2LQYy0grfINyy4az2Jrjy7hDy3LTDCaz1YwGG0WkBBN9U59zjHO4"
        "A6NLcZPhiwIjtXL8m/1LzXtl4y2kGDuZUn1zkQORk1oLgfvpE3RTOaPTKgZTvdvHs6SbNkOJq2G7movWgvND8Pqwk1BLoMojcwZzuzrw+4hS2b"
        "PTo0+7k5PJ44zTwJsys2SrVgQMq8MbfIuOk8OjEUQDSmsLVNwb42xT1SPAM1YLuUOv2wNjTPIzy3JjmwvrvAC7LTvNC9Hj6MPOo6ObR4N1m59L"
        "/Rr2o5sDWuQF28m7mwLAq7j7A+u6U/xiWVufotfbP9tis1fjyjt3E4g7zjOes8jTumutW4ZzYSuq6xHT+DtZQ9dLmrOgGubiqpuH+8mjxtuj62"
        "uDUAMwK7ErynvZu0Ua82P/Yrv7a7Jww++jJDsJVAib0usUi8JbRdvjM9ZDwwv2w8WzHUILG13Ti5v5u+s7utrW64mbXgOm+5Gj0itNI7YkEsK7"
        "Qy3rl+tHY9ybePNeu4g6mTu6+9D7izJmaxzLwONAK/YbdRPd6007s6vB08jThWOmAv+bEvuv64+im6Nh+hzTg9POQ8UCrMvCC8nbpIM4Y58705"
        "PjO3NjVFueg2aLiSPcO+kT4ENqg/BDzavz44xjz0NYE52zqMLzazPKxLv3i5obuautO1M7j3vMk64biYP3q9Pxn7sZ8yPTg9vlY1e7RJNLa7ib"
        "7eIHe/jry2MLO9dLZYuic48rjGuFeu9bJEvmq6Ibz2Ptkt1p78vi3Ao7bXNu1AMrmlOpM0FcFNvsy1b68fuLWya7zhtgA0gixlOcy/MLu3uUor"
        "fLnpN1e4OD4rvRYx+r8xOzC0qbbLrvm5vTZ+Oea+vby9u/OxnSluMsQjR7uPtZ82frZeuPU9JbrgvBu5SzlhsDA8y7HWPTm3Ijl0Ooq0ujTvPL"
        "+wziwkOCC9Hao1uKa5L7/RO1O5ATDqOnI+VLeWvtE2qjjDuDa0Nz2SvxjBWbkZu1Q8+j2cP3O558GUubk+8LbQsv8327VnO7s5j6kePQE0Xy8m"
        "MNg8djdDMjay/z0NvgS8azklutE1JTtrNUu23ryKqXg0bbLmvO+9rzV8JPM7wLjPuji8eLqOOL62ozlfQAWihDSMvS4+kK87wI84iy1lvye3qr"
        "izOhs9TjydOXW+4rTPslC44TuaOQS/ByMpvUG2kjjKspw8rsClvVY9DcDGPsm9tC9eOzayfryJPDWne7kEwOu6F7/VNRg4fbcGNJE5o7uzMEe8"
        "Ujv9OAE1EzwttV04LjepudavBLUcOn29ALkEvVy0ZzXEOFA5tbi3LtY89zL5tLG+AanWsKq/lSw7ux+7LjqKPK29LTcbv7+8ADyRPYnAHbytrr"
        "+4C7eOuRI/IzxOuro4DLlFwMGzmbzIu3c9xjoLtRM2pDF3rMm33b0gvZQ5xja3vJY5TD7Yun4wka5pvjq5+jSMwMS0kK0/Qkg+ZT+9uDI9c6O+"
        "MMo5pEChODe2JTt7uYS7D7QgPCI2K8O9NfU6MS0BtJi4YSqCNw688bq2M3a2b0AiOc2oUr0Duk81tSnduEw8HbIavKu8F7gXO4K6nzeSMWG1H7"
        "sXPe+6bD/dNfC8rblguNevFzoZuPm167P7PUW8rbtRPI0sTSz9uN2zrzxjvTPA77YuvCy+rbyhNaY6D79lsL1AQTj8O1JCqj2UMqC6sLljvbep"
        "xL/Nsbi0lbepNI+4eb68OZWwR7yHwsQ26bpxuGwwo7nKt9m0yTi5OY4gTTxvOs00E7RStoW5kbj7OzY5D7uJNUe8mBy+N/IxIDDhv3++Grpevk"
        "47qLVTuC+x+T5IJmKv4TULOe0zljxevCw7GzH1N7S8tjm6Nai/gMB6vmq0eTvINGsuh70vuOE8cjjluze6zrWkPFs5fjcFsDEowrRHMTY+eb2M"
        "wAq7WzQ7vlS4BUDqvac5m7o6uexAujF8sM82Cr37taG7LCR5JY87eLRQv7299rljOQY8pjwpOJe0h7SBQcy4Tzp6t0m7RKRnNe86/L3dLqA7NL"
        "c3vpw9tTybusatiDOANwG/a8GNsxQ6F724tmG0VKyEOj6/FjlRuD40Ez9vPQk80blxsZA4oDYOLW68xDLltxUv6w9mr7q7BiQIPTq5wrQCN5s+"
        "Azy2Oma8NjkKNFE4L6+TMWO0wTotPDM2uDwsu3c3kbx8PbY+MiXIOVA8+rgzt6E39botwL+uSr1fvFi06CprQbMxuD3EvmQ8DywNtaS9BDpCsI"
        "C5Jz12O8S7tLfCuoM3nLyxvNQ+9b1iuFyvgzWGu/Q/VLiivGQ62TwBsHi1PS+3Po0+7bmnvvtAG7fMu4gvOr2pP6izMj05OIO83b3KObY0HDuO"
        "v9q6KjsRQI24KiymvZcxqbNatvenwTkzvqU1MT4WPao2wrQ8NBG5l6rHPyG9MLc8u4I7jL7PPmi857Kvuq8xhjgVvO45+brovIA4U7j5PKu5f7"
        "iLtPS1DjyNNym+QbpaNS67nrw0QCw6hD/VKbxBj7hIudewBDfSL4W1nzScQLetKDfnsGu/ubh3Mkm8lDkCOsw8SjwlvqG6lrUBuS279DosNv87"
        "6bEcvWS0BcA+ML45ojiftkG56bdhupQ+Y53iu5C4R71JOpu6oqXHwOa3wTIvvEtAD7/ktJOtpDgewCu9TznUN3Y3qDphKfc8eLmHsOm2djuzM0"
        "k8gzRWvsRBocAgvd48TDerNli4dbwIvEU+pLkvvpo5KzsGtV48GyB7usRAVLc5u+e+3704Pm06Ar05vC40M0BSPQWpoji/st0+4Tarnws5VjXH"
        "vVk8sztEPa+8TLZRP3PAebg/Pti5/br5Nug8ZjpOPNa7X6m1M565IL/FK2g4mrRQtla4srG1MYJC8DgtwB01bDwSwaCtlzSMOca9my23vjg7A7"
        "DHNoS1kjjerzCxgj35uQ07nzX8LT4/5T3fwPK3uCxTODQ0+bWwOiG956hwOIoxXbxjucEpSrQ5NMu5BLhssLcxfbtuNpY4GboyQpA9M7MopCS+"
        "dTsAuPo5mTEbvfE1O8DUKHy8urzhNvRAO7m6u2wrMTfWMzs8BzkuvqQq77ZBNCaxOMCYv3g1Rjo0uGu87DvvupitvTKJOEa9nLXHuXM7zL7Ps8"
        "o8LrppPTg8VzGLtUw/7SdkOnw5KT55NsSzssDJrG64FMA5Ojw1Aym6vfY2zjyPvCY/NUCyt05BvLKwsHoqIjHot2e5tLUOvJ+67rDjwmm8+r1d"
        "vZEoLz3POaM1GzgEvyc+xTpNrem9v7hXuko8vzWouTg9mDkeM0CzkTjUNwkwbTWcNhsxAbjEv5+1sq3aQOo7XzokPQe9ezzSoNs4EDK/ubU+Jb"
        "v6OcI0brONuEg8ab4DMDA9iLxnvYw4wDv1v964MbVUwBesZ7cuQUQ1h7twQFi0Vzs0OTo9RC1jvla/XDzsweEvX7RQPpGv+bjbu60627b7PM/A"
        "bbesPYS63j+ruQG437S3OBW8PL3mvGCwmj3KO+49BbsCtIU2Uy7qvSk93TdLtqS6fj9NNkQ8fTlit4s+uLj/Mvg6W7CLOBc+qrowQO430bggNT"
        "i8PDA7PLSkoTJ5vxI/hKlMwZi1tMCis+c2hLrBttasIzvfOE2xScC1puS73DHIvJO+rTlMuA=="
    ),
}
# fmt: on
"""First half of the values by (state bits L, bits b): base64 of 2^(L-1) little-endian fp16
numbers."""

STATE_BITS = tuple(sorted({state_bits for state_bits, _ in HALF_CODEBOOKS}))
TRELLIS_BITS = tuple(sorted({bits for _, bits in HALF_CODEBOOKS}))


@dataclass(frozen=True)
class TrellisCodebook:
    """The values of the states of one trellis, in the two orders that decoding and encoding
    read."""

    bits: int
    """b: bits that a step shifts in."""
    values_S: Tensor
    """Value of each of S = 2^L states, float32."""
    branches_CH: Tensor
    """The same as (2^b, S / 2^b): row c holds the values of the states that end in code c."""

    def on(self, device: torch.device) -> TrellisCodebook:
        """Return the codebook on ``device``."""
        if device == self.values_S.device:
            return self
        return TrellisCodebook(self.bits, self.values_S.to(device), self.branches_CH.to(device))

    def values(self, states_KB: Tensor) -> Tensor:
        """Return the value of each state (K, 1024), int32, as float32."""
        return self.values_S.index_select(0, states_KB.reshape(-1)).view(states_KB.shape)


@cache
def trellis_codebook(state_bits: int, bits: int) -> TrellisCodebook:
    """Return the codebook of 2^``state_bits`` states at ``bits`` bits, one of
    ``HALF_CODEBOOKS``."""
    half = np.frombuffer(base64.b64decode(HALF_CODEBOOKS[state_bits, bits]), "<f2").astype(np.float32)
    values_S = torch.from_numpy(np.concatenate([half, -half[::-1]]))
    return TrellisCodebook(bits, values_S, values_S.view(-1, 2**bits).T.contiguous())
