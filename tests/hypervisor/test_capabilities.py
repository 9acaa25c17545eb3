"""The topology of a remote host, from libvirt's capabilities alone."""

from virtbalance.hypervisor.capabilities import host_uuid, topology_from_capabilities
from virtbalance.model.topology import NumaNode, Pcpu

TWO_NODES = """
<capabilities><host>
  <uuid>4c4c4544-0043-3510-8058-b3c04f423432</uuid>
  <topology><cells num='2'>
    <cell id='0'><memory unit='KiB'>65000000</memory><cpus num='4'>
      <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
      <cpu id='1' socket_id='0' die_id='0' core_id='1' siblings='1,5'/>
      <cpu id='4' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
      <cpu id='5' socket_id='0' die_id='0' core_id='1' siblings='1,5'/>
    </cpus></cell>
    <cell id='1'><memory unit='GiB'>62</memory><cpus num='3'>
      <cpu id='2' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
      <cpu id='6' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
      <cpu id='7'/>
    </cpus></cell>
  </cells></topology>
  %s
</host></capabilities>"""
CACHES = """<cache>
  <bank id='0' level='3' type='both' size='30' unit='MiB' cpus='0,4'/>
  <bank id='1' level='3' type='both' size='30' unit='MiB' cpus='1,5'/>
  <bank id='8' level='3' type='both' size='30' unit='MiB' cpus='2,6-7'/>
</cache>"""
MAP = (True, True, True, False, True, True, True, False)


def test_nodes_cores_caches_and_holes() -> None:
    topology = topology_from_capabilities(TWO_NODES % CACHES, MAP)
    assert topology.by_id[5] == Pcpu(5, core=1, llc=1, node=0)
    assert topology.by_id[6] == Pcpu(6, core=2, llc=2, node=1)
    assert topology.by_id[7] == Pcpu(7, core=7, llc=2, node=1, online=False)
    assert topology.usable == {0, 1, 2, 4, 5, 6}
    assert topology.nodes == (NumaNode(0, 65_000_000), NumaNode(1, 62 * 1024 * 1024))
    assert topology.map_length == 8


def test_without_caches_the_die_stands_in() -> None:
    topology = topology_from_capabilities(TWO_NODES % "", MAP)
    assert [topology.by_id[cpu].llc for cpu in (0, 1, 4, 5, 2, 6)] == [0, 0, 0, 0, 2, 2]


def test_cpu_beyond_the_map_can_not_be_used() -> None:
    topology = topology_from_capabilities(TWO_NODES % "", MAP[:5])
    assert topology.usable == {0, 1, 2, 4}


def test_without_any_topology_the_map_stands_in() -> None:
    xml = "<capabilities><host/></capabilities>"
    topology = topology_from_capabilities(xml, (True, False, True))
    assert topology.usable == {0, 2}
    assert {pcpu.llc for pcpu in topology.pcpus} == {0}


def test_host_uuid() -> None:
    assert host_uuid(TWO_NODES % "") == "4c4c4544-0043-3510-8058-b3c04f423432"
    assert host_uuid("<capabilities><host/></capabilities>") is None
